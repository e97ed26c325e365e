"""The cluster's DNS: Services and endpoints become the records of the DNS specification (kubernetes/dns, 1.1.0)."""
