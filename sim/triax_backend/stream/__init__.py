"""Window features and events out of frames: pure functions over arrays, and the engines that call them."""
