"""The model zoo: architectures, training, exporters, evaluation."""
