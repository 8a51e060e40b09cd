"""A training's folder: begun, resumed, recorded, watched, reported."""
