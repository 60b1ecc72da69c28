-- The name a user's tokens said last, beside the name the user is shown by: a token that says the same again must not
-- undo a name that was set since. NULL: no token has said any since this column is here; then `username` counts.
ALTER TABLE users ADD COLUMN token_name text;
