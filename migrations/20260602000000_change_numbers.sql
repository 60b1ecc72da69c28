-- Changes are counted as they are written, so that those below a place need not be. Only adds; a moment of an exclusive lock.

-- How many changes the conversation has up to this one; nothing where it was written by a version that did not count.
ALTER TABLE changes ADD COLUMN nth bigint;
