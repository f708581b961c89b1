"""Numbers to a terminal, a report and TensorBoard events; nothing is computed here, only shown."""
