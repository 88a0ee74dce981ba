"""What the backend of actors needs of a cluster. Ray is behind it, or what tests put there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

LOCAL = "local"
"""The address of a cluster that ends with this process, and that no other reaches."""


@dataclass(frozen=True)
class Died:
    """The actor is gone, and the call with it; `unborn`: its constructor raised."""

    reason: str
    unborn: bool = False


@dataclass(frozen=True)
class Raised:
    """The method raised."""

    reason: str


class Door(Protocol):
    """A cluster. References and groups are opaque; methods of actors are called by `.remote`."""

    address: str

    def nodes(self) -> Sequence[Mapping[str, Any]]:
        """As `ray.nodes()` tells them."""

    def group(self, bundles: Sequence[Mapping[str, float]], nodes: Sequence[str]) -> Any:
        """Take resources on these nodes, one bundle each, all or nothing, as soon as it is free."""

    def has_room(self, group: Any) -> bool:
        """Whether a group has its resources."""

    def remove_group(self, group: Any) -> None:
        """Give them back."""

    def actor(
        self,
        cls: type,
        arguments: tuple[Any, ...],
        *,
        name: str,
        node: str,
        place: tuple[Any, int] | None,
    ) -> Any:
        """Make an actor in a bundle of a group, or on a node for nothing; never twice."""

    def kill(self, actor: Any) -> None:
        """End an actor, whatever it does."""

    def wait(self, references: Sequence[Any], timeout_s: float) -> Sequence[Any]:
        """Those of the calls that are over, as soon as one is, or the time is."""

    def result(self, reference: Any) -> Any:
        """What the call gave, or Died, or Raised. Raises OrtOptimError: the cluster is gone."""

    def close(self) -> None:
        """Let go of the cluster."""
