"""Functions of vectors: activations and what they are made of.

    UNARY    functions of one vector and some constants
    BINARY   functions of two vectors

They run between a sum and its store, so they are short: polynomials and quotients of polynomials
fitted for a small largest error, about 2 units in the last place (ulp). NaN stays NaN, and infinite
numbers give what ONNX Runtime gives: -inf * sigmoid(-inf), for one, is NaN.

The gates g of x * g(x), the sigmoid among them, are exactly 0 and 1 where float32 can't tell them
from that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ort_optim.kernels.builder import Code
from ort_optim.kernels.values import Vec

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.693145751953125, 1.4286068203094173e-06
"""ln 2 in two parts, the first of 16 bits: its products with exponents are exact."""

EXP = (1.0, 0.9999997036701238, 0.4999914275570965, 0.1666764394704849, 0.04189885142359275,
       0.008290143854818167)  # fmt: skip
"""e^r for |r| <= ln(2)/2, relative error 9e-8."""
EXPM1_OVER = (1.000000032540862, 0.4999999413914712, 0.16666429408966918, 0.041668012828644865,
              0.0083743166965588, 0.0013843465792073204)  # fmt: skip
"""(e^r - 1) / r likewise, relative error 4e-8."""

TANH_LIMIT = 8.2  # tanh is taken for 1 from here on, an error of 1.5e-7
TANH_OVER = (1.0, 0.13379718363285065, 0.003494034521281719, 2.0583480363711715e-05,
             1.3319072955653155e-08)  # fmt: skip
TANH_UNDER = (1.0, 0.4671303331851959, 0.025871073827147484, 0.0003283092810306698,
              7.762019436086121e-07)  # fmt: skip
"""tanh(x) / x as a quotient of polynomials in x^2, relative error 2e-8."""

NORMAL_LIMIT = 5.6  # of the normal distribution less than 2^-26 lies beyond
NORMAL_OVER = (0.3989422619342804, 0.033929307013750076, 0.0046773687936365604,
               0.00016893223801162094, 6.289811608439777e-06,
               2.229728934821651e-08)  # fmt: skip
NORMAL_UNDER = (1.0, 0.2517144978046417, 0.028677718713879585, 0.0018855088856071234,
                7.334521797019988e-05, 1.1796558965215809e-06)  # fmt: skip
"""(Phi(x) - 1/2) / x, Phi the normal distribution function, likewise; relative error 3e-8."""


LOG1P_OVER = (1.0, 1.066218627102931, 0.23815762253723458, 0.0034172850174386815)
LOG1P_UNDER = (1.0, 1.5662184965689934, 0.6879364641715292, 0.07528732261967074)
"""ln(1 + t) / t for 0 <= t <= 1, likewise; relative error 1e-9."""


def polynomial(code: Code, x: Vec, coefficients: Sequence[float]) -> Vec:
    """c[0] + c[1] x + c[2] x^2 + ..."""
    total = code.vec(coefficients[-1])
    for each in reversed(coefficients[:-1]):
        total = code.fma(total, x, code.vec(each))
    return total


def exp(code: Code, x: Vec) -> Vec:
    """e^x = 2^n e^r with |r| <= ln(2)/2"""
    x = x.minimum(89.0).maximum(-104.0)  # there e^x is inf and 0
    n, r = _reduced(code, x)
    return polynomial(code, r, EXP).scaled(n)


def expm1(code: Code, x: Vec) -> Vec:
    """e^x - 1 for x <= 0, exact to the last bits near 0: 2^n (e^r - 1) + (2^n - 1)"""
    n, r = _reduced(code, x.maximum(-87.0))
    power = n.power_of_two()
    return code.fma(power * r, polynomial(code, r, EXPM1_OVER), power - 1.0)


def relu(code: Code, x: Vec) -> Vec:
    """max(x, 0)"""
    return x.maximum(0.0)


def clip(code: Code, x: Vec, low: float, high: float) -> Vec:
    """min(max(x, low), high); either bound may be infinite"""
    if low != -math.inf:
        x = x.maximum(low)
    return x if high == math.inf else x.minimum(high)


def leaky_relu(code: Code, x: Vec, alpha: float) -> Vec:
    """x where x >= 0, else alpha x"""
    if 0 < alpha < 1:
        return x.maximum(x * alpha)
    return (x < 0.0).choose(x * alpha, x)


def elu(code: Code, x: Vec, alpha: float) -> Vec:
    """x where x >= 0, else alpha (e^x - 1)"""
    return (x < 0.0).choose(expm1(code, x) * alpha, x)


def sigmoid(code: Code, x: Vec) -> Vec:
    """1 / (1 + e^-x)"""
    return 1.0 / (_quick_exp(code, -x) + 1.0)


def silu(code: Code, x: Vec) -> Vec:
    """x sigmoid(x)"""
    return x / (_quick_exp(code, -x) + 1.0)


def hard_sigmoid(code: Code, x: Vec, alpha: float, beta: float) -> Vec:
    """max(0, min(1, alpha x + beta))"""
    return code.fma(x, code.vec(alpha), code.vec(beta)).minimum(1.0).maximum(0.0)


def hard_swish(code: Code, x: Vec) -> Vec:
    """x max(0, min(1, x / 6 + 1/2))"""
    return x * hard_sigmoid(code, x, 1 / 6, 0.5)


def tanh(code: Code, x: Vec) -> Vec:
    """x P(x^2) / Q(x^2), or -1 or 1"""
    square = x * x
    over, under = polynomial(code, square, TANH_OVER), polynomial(code, square, TANH_UNDER)
    return _saturated(code, x, TANH_LIMIT, x * over / under, -1.0, 1.0)


def erf(code: Code, x: Vec) -> Vec:
    """2 Phi(sqrt(2) x) - 1"""
    x = x * math.sqrt(2)
    over, under = _normal(code, x)
    inner = ((x + x) * over / under).minimum(1.0).maximum(-1.0)
    return _saturated(code, x, NORMAL_LIMIT, inner, -1.0, 1.0)


def gelu(code: Code, x: Vec) -> Vec:
    """x Phi(x); the error of Phi is absolute where x is negative, as of (1 + erf) / 2"""
    over, under = _normal(code, x)
    return x * _saturated(code, x, NORMAL_LIMIT, x * over / under + 0.5, 0.0, 1.0)


def gelu_tanh(code: Code, x: Vec) -> Vec:
    """x (1 + tanh(u)) / 2 = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)"""
    scale = -2 * math.sqrt(2 / math.pi)
    cubic = code.fma(x * x, code.vec(scale * 0.044715), code.vec(scale))
    return x / (_quick_exp(code, x * cubic) + 1.0)


def mish(code: Code, x: Vec) -> Vec:
    """x tanh(ln(1 + e^x)) = x n / (n + 2), n = e^x (e^x + 2)"""
    power = _quick_exp(code, x.minimum(40.0))
    n = power * (power + 2.0)
    return x * (n / (n + 2.0))


def softplus(code: Code, x: Vec) -> Vec:
    """ln(1 + e^x) = max(x, 0) + ln(1 + t), t = e^-|x|"""
    t = _quick_exp(code, -x.absolute())
    over, under = polynomial(code, t, LOG1P_OVER), polynomial(code, t, LOG1P_UNDER)
    return x.maximum(0.0) + t * over / under


def prelu(code: Code, x: Vec, slope: Vec) -> Vec:
    """x where x >= 0, else slope x"""
    return (x < 0.0).choose(x * slope, x)


def maximum(code: Code, a: Vec, b: Vec) -> Vec:
    """The larger; NaN if either is"""
    return b.is_nan().choose(b, a.maximum(b))


def minimum(code: Code, a: Vec, b: Vec) -> Vec:
    """The smaller; NaN if either is"""
    return b.is_nan().choose(b, a.minimum(b))


def _reduced(code: Code, x: Vec) -> tuple[Vec, Vec]:
    """x = n ln(2) + r: (n, r), |r| <= ln(2)/2"""
    n = (x * LOG2_E).rounded()
    r = code.fma(n, code.vec(-LN2_HIGH), x)
    return n, code.fma(n, code.vec(-LN2_LOW), r)


def _quick_exp(code: Code, x: Vec) -> Vec:
    """e^x, but 0 below the smallest normal number and inf already from 2^127.5 on"""
    x = x.minimum(89.0).maximum(-88.0)  # so n is in [-127, 128], powers that come out as 0 and inf
    n, r = _reduced(code, x)
    return polynomial(code, r, EXP) * n.power_of_two()


def _normal(code: Code, x: Vec) -> tuple[Vec, Vec]:
    """Phi(x) - 1/2 divided by x, as numerator and denominator"""
    square = x * x
    return polynomial(code, square, NORMAL_OVER), polynomial(code, square, NORMAL_UNDER)


def _saturated(code: Code, x: Vec, limit: float, inner: Vec, low: float, high: float) -> Vec:
    """`inner`, but `low` where x < -limit and `high` where x > limit"""
    found = (x > limit).choose(code.vec(high), inner)
    return (x < -limit).choose(code.vec(low), found)


UNARY: dict[str, Callable[..., Vec]] = {
    "relu": relu,
    "clip": clip,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "sigmoid": sigmoid,
    "silu": silu,
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": hard_swish,
    "tanh": tanh,
    "erf": erf,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "mish": mish,
    "softplus": softplus,
    "exp": exp,
    "sqrt": lambda code, x: x.square_root(),
    "abs": lambda code, x: x.absolute(),
    "neg": lambda code, x: -x,
    "add_number": lambda code, x, number: x + number,
    "mul_number": lambda code, x, number: x * number,
    "div_number": lambda code, x, number: x / number,
    "number_sub": lambda code, x, number: number - x,
    "number_div": lambda code, x, number: number / x,
}
"""By kind, `function(code, x, *numbers)`."""

BINARY: dict[str, Callable[[Code, Vec, Vec], Vec]] = {
    "add": lambda code, a, b: a + b,
    "sub": lambda code, a, b: a - b,
    "mul": lambda code, a, b: a * b,
    "div": lambda code, a, b: a / b,
    "min": minimum,
    "max": maximum,
    "prelu": prelu,
}
"""By kind, `function(code, a, b)`."""
