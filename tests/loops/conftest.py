"""Two logical CPU devices, set before TensorFlow starts, so that a mirrored strategy has two replicas."""

import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
