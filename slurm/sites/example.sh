# Settings of one cluster: copy to NAME.sh, edit, and submit with AST_SITE=NAME. Read by slurm/run.sbatch.
# module purge
# module load gcc openmpi hdf5-parallel openblas
# export OMPI_MCA_pml=ucx                      # the interconnect's own transport; launch.sh takes ob1 otherwise
# export OMPI_MCA_btl_tcp_if_include=ib0       # which network, where ob1 runs over TCP
