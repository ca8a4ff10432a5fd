"""The MNS door: everything that speaks to Alibaba Message Service."""
