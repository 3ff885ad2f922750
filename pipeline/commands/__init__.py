"""The commands of `mnist`, a module each; none imports anything heavy before it is called."""
