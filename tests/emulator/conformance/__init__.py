"""Is the emulator as strict as Alibaba's services? Case by case, each with its source.

An id says what a case shows and who says so: the number of a page of Alibaba's
(``help.aliyun.com/document_detail/<number>.html``), ``protocol 1.7`` (that section of our notes on
the protocol), ``observed`` (somebody's capture of the real service), ``SDK`` (an official client
depends on it) or ``inferred``. Most cases talk to the services in this process (:mod:`.cloud`), so
that a week costs nothing; what HTTP adds and what official clients see is shown against a process.
"""
