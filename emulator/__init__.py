"""The other side of the wall: MNS, the token service, the SMS API and a simulated carrier."""
