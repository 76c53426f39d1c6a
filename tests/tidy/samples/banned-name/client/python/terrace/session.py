"""A type whose name says nothing."""


class SessionManager:
    pass
