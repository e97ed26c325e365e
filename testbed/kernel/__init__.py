"""The kernel's own words: links, routes, nft, sysctls, network namespaces, probes."""
