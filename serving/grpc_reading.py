"""What callers send is read on the thread that takes up their calls.

By default gRPC reads on threads of its own and hands on each piece of what it has read: a lone call wakes
threads up 16 times, and 11 times without. gRPC looks at this setting once, when it is imported; what somebody
has set already stays.
"""

import os

os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
