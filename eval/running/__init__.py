"""Evaluations of a model by a named protocol: in process, over gRPC, in several processes, resumable.

``run([Job(model="tiny", protocol=protocol("scenes_ov_coco"), data="scenes", out=Path("out"))])`` looks at
every picture once, writes what was found durably, and ends with an `Outcome` in the folder.
"""
