"""One click file a command: flags, their validation, one library call. Installed as `cxr_reason.commands`."""
