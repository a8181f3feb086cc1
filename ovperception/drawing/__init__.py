"""Answers as pictures, with OpenCV alone.

Every function takes an (H, W, 3) uint8 RGB picture and returns a new one of the same size, or a sheet of
several. Lines and letters grow with the picture. OpenCV 5 writes all the letters its built-in font has;
OpenCV 4 knows ASCII only and puts a question mark for the rest.
"""

from ovperception.drawing.answers import draw_detections, draw_panoptic, draw_semantic
from ovperception.drawing.heatmap import draw_heatmap, draw_heatmaps
from ovperception.drawing.palette import colours
from ovperception.drawing.sheets import grid, legend

__all__ = [
    "colours",
    "draw_detections",
    "draw_heatmap",
    "draw_heatmaps",
    "draw_panoptic",
    "draw_semantic",
    "grid",
    "legend",
]
