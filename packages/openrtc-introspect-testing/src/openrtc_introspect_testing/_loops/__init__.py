"""FakeLoop and its clock, and the event loops that one test can run on."""
