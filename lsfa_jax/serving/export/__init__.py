"""Trained models for other systems: the network as a program (StableHLO, ONNX), and the model with a card for a hub."""
