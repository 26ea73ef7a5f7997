"""News descriptions of AG News, world or business."""
