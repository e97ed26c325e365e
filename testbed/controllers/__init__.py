"""The control loops of the control plane, one reconcile each."""
