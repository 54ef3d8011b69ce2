"""Why images were scored as they were: sentences, attributions, heat maps, sheets."""
