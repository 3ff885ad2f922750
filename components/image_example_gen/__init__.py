"""ImageExampleGen: labelled images from any source to tf.Examples in three splits."""
