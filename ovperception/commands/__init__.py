"""The sub-commands of ``ovp`` that need no upper floor, one file each; see `ovperception.cli`."""
