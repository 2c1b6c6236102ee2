"""Names of the classes: cats and dogs are always ``cat`` and ``dog``, other classes are called as you call them."""

from collections.abc import Iterable, Sequence

_SINGULAR = {"cat": "cat", "cats": "cat", "dog": "dog", "dogs": "dog"}


def canonical_class(name: str, classes: Iterable[str]) -> str:
    """Return ``cat`` or ``dog`` for ``Cat``, ``cats``, ``DOGS`` and the like if `classes` are just these two.

    With any other set of classes, `name` is returned as it is.
    """
    singulars = sorted(_SINGULAR.get(each.casefold(), "") for each in classes)
    return _SINGULAR.get(name.casefold(), name) if singulars == ["cat", "dog"] else name


def canonical_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Apply `canonical_class` to all of `classes`, in their order."""
    return tuple(canonical_class(name, classes) for name in classes)
