"""What a fraud team would train instead, measured beside ours."""
