-- A sign-in keeps a hash that was made at a lower cost in a stronger form. SHA-256 of the weaker one and of what came of it:
-- an apply file that still names the weaker one says nothing new. Once the password is another, by whatever way, so is its
-- hash, and the digest fits nothing any more.
alter table password_credentials add column rehash_digest text
