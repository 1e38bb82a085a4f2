"""Statistics files of this package and of its peers, told apart by their keys.

| writer                          | keys                                                    |
|---------------------------------|---------------------------------------------------------|
| ours, pytorch-fid, clean-fid    | mu, sigma; feats alone, or beside them                  |
| guided-diffusion (ADM)          | mu, sigma, beside the images arr_0                      |
| torch-fidelity's cache          | mu, sigma; or features alone, under 2048                |
| EDM2                            | fid: mu, sigma; and the same over other networks        |
| MMGeneration; MMagic            | mean, cov, size; real_mean, real_cov, raw_feature       |
| StyleGAN                        | raw_mean, raw_cov: sums, not yet divided, and num_items |
| StudioGAN                       | real_feats                                              |
"""

import numpy as np

from shared_metrics import array_files, weights
from shared_metrics.errors import UserError
from shared_metrics.files import open_regular

INFO = {"protocol": str, "variant": str, "weights_sha256": str, "comparable": bool}
INFO |= {"resolution": (str, int), "fingerprint": str}
MOMENTS = (("mu", "sigma"), ("real_mean", "real_cov"), ("mean", "cov"))
SUMS = ("raw_mean", "raw_cov")
FEATURES = ("feats", "real_feats", "raw_feature", "2048")
COUNTS = ("num_items", "size")
WANTED = {*INFO, *sum(MOMENTS, ()), *SUMS, *FEATURES, *COUNTS}


def read(path):
    """What a file tells: {"mean", "cov", "number", "features", "info", "notes"}; None where it does
    not.

    Raises: UserError naming the file, and the entry at fault.
    """
    data, notes = _contents(path)
    if isinstance(data.get("fid"), dict):  # EDM2's, by the network
        data = data["fid"]
    number = _number(data, path)
    mean, cov = _moments(data, number, path)
    name = next((name for name in FEATURES if data.get(name) is not None), None)
    features = None if name is None else _numbers(data, name, 2, path)
    if mean is None and features is None:
        raise UserError(f"{path}: {_nothing(data)}")
    info = {}
    for key, kind in INFO.items():
        value = data.get(key)
        value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
        if isinstance(value, kind):
            info[key] = value
    return {
        "mean": mean,
        "cov": cov,
        "number": number,
        "features": features,
        "info": info,
        "notes": notes,
    }


def beside(path):
    """Whether a .npz of images holds the mean and covariance of a whole set beside them."""
    return any(set(pair) <= set(array_files.headers(path)) for pair in MOMENTS)


def _contents(path):
    """(a file's entries, notes); of an .npz those entries alone that tell statistics."""
    notes = ()
    with array_files.naming(path), open_regular(path) as file:
        head = file.read(6)
    if head == b"\x93NUMPY":
        data = array_files.read(path)[""]
    elif head.startswith(b"PK") and (headers := array_files.headers(path)):
        data = array_files.read(path, WANTED)
        if not data:
            raise UserError(f"{path}: {_nothing(headers)}")
        images = [name for name, header in headers.items() if len(header.shape) == 4]
        if images:
            names = ", ".join(data)
            notes = (f"{path}: its {names} are used, not the images beside them ({images[0]})",)
    else:  # torch's zip, which holds no arrays of numpy's, and pickles
        data = weights.load(path)
    if isinstance(data, np.ndarray):
        data = {"one array": data}
    if not isinstance(data, dict):
        raise UserError(f"{path}: no statistics file; it holds no mean and covariance")
    return data, notes


def _nothing(data):
    found = []
    for name, value in data.items():
        shape = getattr(value, "shape", None)
        found.append(f"{name} {value.dtype} {shape}" if shape else str(name))
    images = any(len(getattr(value, "shape", ())) in (3, 4) for value in data.values())
    hint = "; images need uint8 (N, H, W, 3), RGB in 0..255" if images else ""
    return (
        "holds neither mean and covariance nor features (found: "
        f"{weights.printable(', '.join(found))}{hint})"
    )


def _number(data, path):
    for key in COUNTS:
        if data.get(key) is not None:
            value = np.asarray(data[key])
            if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
                raise UserError(f"{path}: {key} is no number of images; make the file again")
            return int(value.item()) if value.item() >= 0 else None
    return None


def _moments(data, number, path):
    """(mean, covariance) in float64, or (None, None)."""
    if all(data.get(name) is not None for name in SUMS) and number and number > 1:
        total = _numbers(data, "raw_mean", 1, path)
        mean = total / number
        # Its own covariance divides by N.
        cov = (_numbers(data, "raw_cov", 2, path) - number * np.outer(mean, mean)) / (number - 1)
        _check_variances(cov, "raw_cov", path)
        return mean, cov
    for first, second in MOMENTS:
        if data.get(first) is not None and data.get(second) is not None:
            mean = _numbers(data, first, None, path).ravel()
            cov = _numbers(data, second, 2, path)
            if cov.shape != (mean.size, mean.size):
                raise UserError(
                    f"{path}: {first} {mean.shape} and {second} {cov.shape}: need (D,) and (D, D)"
                )
            _check_variances(cov, second, path)
            return mean, cov
    return None, None


def _numbers(data, name, dims, path):
    """An entry as a float64 array without NaN and infinity."""
    value = data[name]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise UserError(f"{path}: {name} is no array of numbers; make the file again")
    if dims is not None and value.ndim != dims:
        raise UserError(f"{path}: {name} has the shape {value.shape}: need {dims} dimensions")
    if not np.isfinite(value).all():
        raise UserError(f"{path}: {name} holds NaN or infinite values; make the file again")
    return value.astype(np.float64)


def _check_variances(cov, name, path):
    """Rounding makes variances of 0 a little negative; more is no covariance."""
    variances = np.diag(cov)
    if variances.size and variances.min() < -1e-6 * max(1.0, variances.max()):
        raise UserError(f"{path}: {name} holds a negative variance; make the file again")
