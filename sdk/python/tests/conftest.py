import sys
from pathlib import Path

# So that tests find the modules beside them.
sys.path.insert(0, str(Path(__file__).parent))
