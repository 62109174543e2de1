"""Small models and real speech that the tests share."""
