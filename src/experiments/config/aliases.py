"""Names under which users look for a key."""

ALIASES = {
    **dict.fromkeys(("lr", "eta", "learning_rate", "max_lr", "base_lr"), "optimizer.learning_rate"),
    **dict.fromkeys(("bs", "batch", "batchsize", "batch_size"), "data.batch_size"),
    **dict.fromkeys(("epoch", "num_epochs", "n_epochs", "max_epochs", "nb_epoch"), "epochs"),
    **dict.fromkeys(("wd", "weight_decay"), "optimizer.weight_decay"),
    **dict.fromkeys(("opt", "optim"), "optimizer"),
    **dict.fromkeys(("arch", "architecture", "net", "network", "backbone", "model.name", "model.type"), "model"),
    **dict.fromkeys(("data_dir", "data_path", "data.dir", "data.root", "data.folder"), "data.path"),
    **dict.fromkeys(("img_size", "imgsz", "image_size", "input_size"), "data.image_size"),
    **dict.fromkeys(("val_split", "validation_split"), "data.validation_fraction"),
    **dict.fromkeys(("scheduler", "lr_scheduler"), "schedule"),
    **dict.fromkeys(("amp", "fp16", "mixed_precision", "precision"), "runtime.precision"),
    **dict.fromkeys(("gpu", "gpus", "accelerator"), "runtime.device"),
    **dict.fromkeys(("random_seed", "random_state"), "seed"),
    **dict.fromkeys(("run_name", "name"), "logging.run_name"),
    **dict.fromkeys(("experiment_name", "project"), "logging.experiment_name"),
    **dict.fromkeys(("output", "output_dir", "out_dir", "save_dir", "log_dir", "logdir"), "hydra.run.dir"),
    **dict.fromkeys(("ckpt", "checkpoint_path", "restore"), "resume"),
    **dict.fromkeys(("workers", "num_workers"), "data.num_parallel_calls"),
    **dict.fromkeys(("pretrained", "weights"), "model.weights"),
    "dataset": "data",
    "verbose": "progress",
    "steps_per_epoch": "data.limit",
    "patience": "callbacks.early_stopping.patience",
}
"""Names of keys in other tools, or in other places of a config -> the key of the training that has their effect."""
