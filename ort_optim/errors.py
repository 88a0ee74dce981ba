"""The errors a user can meet, and the exit code each one stands for."""

from __future__ import annotations


class OrtOptimError(Exception):
    """Base of all errors raised on purpose. The message is one line that says what to do."""

    exit_code = 1


class InputError(OrtOptimError):
    """A bad argument or a bad input file."""

    exit_code = 2


class VerificationError(OrtOptimError):
    """The outputs differ, or could not be compared where that was demanded."""

    exit_code = 3


class BudgetError(OrtOptimError):
    """A budget or a baseline given by the user is exceeded."""

    exit_code = 4


class WorkerError(OrtOptimError):
    """The worker process that runs ONNX Runtime died or did not answer in time."""
