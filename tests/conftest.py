import jax

# Four devices on the CPU, asked for before the first array is made: what is split over devices is tested everywhere.
jax.config.update("jax_num_cpu_devices", 4)
