"""Film reviews of the ERASER benchmark with human rationales."""
