"""What stands in an output where logits would: they were made piece by piece and never kept."""

from __future__ import annotations

from typing import Any, NoReturn

from .._errors import EbbtideError

_MESSAGE = (
    "logits were not kept: with labels, ebbtide.offload computes the loss piece by piece. Call the "
    "model without labels for logits, or with skip_logits=False; in evaluation "
    "ebbtide.offload(model, logits=True) always keeps them"
)


class LogitsNotKept(EbbtideError, AttributeError):
    """Also an AttributeError: what asks with hasattr whether this is a tensor is told that it is not."""


class AbsentLogits:
    """Any use raises LogitsNotKept. No tensor, so that what walks through outputs passes it by."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # copying, pickling and tree walks ask for optional protocols
            raise AttributeError(name)
        raise LogitsNotKept(f".{name}: {_MESSAGE}")

    def _refuse(self, *_: Any) -> NoReturn:
        raise LogitsNotKept(_MESSAGE)

    __getitem__ = __len__ = __iter__ = __bool__ = _refuse
    __add__ = __radd__ = __sub__ = __mul__ = __rmul__ = __truediv__ = _refuse

    @classmethod
    def __torch_function__(cls, *_: Any) -> NoReturn:
        raise LogitsNotKept(_MESSAGE)

    def __repr__(self) -> str:
        return "AbsentLogits()"
