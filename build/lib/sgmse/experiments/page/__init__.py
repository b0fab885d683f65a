"""The page with the answer: what a matrix of experiments found, to read and to listen to."""
