"""x"""
def transformers_entries():
    return iter(())
