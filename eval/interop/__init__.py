"""Results to and from the files and objects of other tools, and our metrics inside their evaluations."""

from eval.interop.result_files import (
    from_supervision,
    read_detections,
    read_panoptic,
    write_detections,
    write_panoptic,
)

__all__ = ["from_supervision", "read_detections", "read_panoptic", "write_detections", "write_panoptic"]
