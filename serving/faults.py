"""Which errors are one request's misfortune, and after which the device cannot be trusted any more.

An illegal address, a failed assertion on the device or a lost device poisons the whole process: calls after
it fail, or worse, answer wrongly. Running out of memory does not.
"""

from __future__ import annotations

from ovperception.errors import OVPError, ResourceExhausted

__all__ = ["explain", "is_fatal", "ran_out_of_memory"]

_LOST = (
    "cuda error",
    "cudnn error",
    "cublas_status_execution_failed",
    "cublas_status_internal_error",
    "device-side assert",
    "illegal memory access",
    "unspecified launch failure",
    "hip error",
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or this error's cause, had no memory left."""
    return any(type(e).__name__ == "OutOfMemoryError" for e in _causes(error))  # torch's, not imported here


def is_fatal(error: BaseException) -> bool:
    """Whether the device is lost."""
    return any(_tells_of_a_lost_device(e) for e in _causes(error)) and not ran_out_of_memory(error)


def _tells_of_a_lost_device(error: BaseException) -> bool:
    if any(cls.__name__ == "AcceleratorError" for cls in type(error).__mro__):  # torch's since 2.8
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _LOST)


def _causes(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__
    return chain


def explain(error: Exception) -> Exception:
    """An error of ours for what is nobody's bug."""
    if not isinstance(error, OVPError) and ran_out_of_memory(error):
        return ResourceExhausted("The device ran out of memory", mend="Send a smaller image, or try again")
    return error
