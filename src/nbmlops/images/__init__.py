"""Images: both sides of a job in one file system, made by a recipe and known by its id.

``recipe`` says, purely, what an image is made of; ``building`` has the engine make, push and tell
it; ``about`` runs inside one and says what it holds.
"""

# Where the two sides of a job are in an image.
TOOL_PYTHON = "/opt/nbmlops/tool/bin/python"
PROJECT_PYTHON = "/opt/nbmlops/project/bin/python"
ABOUT_FILE = "/opt/nbmlops/environment.json"
# Where a job finds its folders there.
INBOX = "/nbmlops/inbox"
OUTBOX = "/nbmlops/outbox"
# The port of every job with one, in its container.
PORT = 8080
# Who a container runs as where nobody says otherwise.
USER = 10001
