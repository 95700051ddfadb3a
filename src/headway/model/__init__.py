"""What the parts of headway say to each other: plain data, no behaviour, stdlib and msgspec only."""
