# `wstest` with settings of the test. Two numbers, then the arguments of wstest:
# - maximum number of messages of a compression case. By default each sends a thousand of up to
#   128 KiB, and all 216 cases take almost a quarter of an hour;
# - port that the Host header of a request to the echo server must have: that of the proxy.
import sys

from autobahntestsuite import testee, wstest
from autobahntestsuite.case import Cases

messages, port = int(sys.argv.pop(1)), int(sys.argv.pop(1))
for case in Cases:
    if hasattr(case, "AUTOFRAGSIZE"):
        case.COUNT = min(case.COUNT, messages)

listen = testee.listenWS


def listen_behind(factory, *rest):
    factory.externalPort = port
    return listen(factory, *rest)


testee.listenWS = listen_behind
wstest.run()
