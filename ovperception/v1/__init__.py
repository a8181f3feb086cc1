"""Generated from the protos by protos/generate.py; do not edit."""
