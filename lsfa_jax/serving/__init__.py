"""Predictions and explanations of a trained model."""
