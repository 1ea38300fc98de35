"""Fine-tuning of the properties network on labelled galaxies."""
