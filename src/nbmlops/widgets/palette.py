"""The colours of pictures, and of drawings whose host strips styles; those of ``drift.css``."""

INK, MUTED, PALE = "#1f2328", "#59636e", "#d1d9e0"
REFERENCE = "#aab4c0"
WINDOW, WINDOW_BAD = "#2f6fde", "#d9480f"
LEVELS = ("#e6ebf1", "#bccde0", "#fbc894", "#f29a52", "#d95f18", "#9c3203")
DOTS = ("#2a1402", "#2a1402", "#2a1402", "#2a1402", "#2a1402", "#fff4ea")
