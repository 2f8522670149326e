"""Media processing by ffmpeg for modules, outside their sandboxes and under limits of its own."""
