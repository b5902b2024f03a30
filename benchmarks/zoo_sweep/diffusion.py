"""x"""
def diffusers_entries():
    return iter(())
