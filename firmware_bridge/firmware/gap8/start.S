/* The fabric controller (cluster number 32) runs main, the cluster's cores cluster_main(core), each on its own stack. */
    .section .vectors, "ax"
    .org 0x80 /* where a core of the cluster begins, counted from its boot address */
    j _start
    .section .text.start
    .globl _start
_start:
    csrw 0x7a1, zero
    la gp, __global_pointer$
    csrr a0, mhartid
    srli a1, a0, 5
    andi a0, a0, 31
    li a2, 32
    bne a1, a2, cluster
    la sp, stack_top
    la t0, bss_begin
    la t1, bss_end
1:  bgeu t0, t1, 2f
    sw zero, 0(t0)
    addi t0, t0, 4
    j 1b
2:  call main
3:  wfi
    j 3b
cluster:
    la sp, cluster_stacks /* 1 kB each; core 0, which also cuts layers into pieces, has 3 kB above them */
    mv a1, a0
    bnez a0, 4f
    li a1, 10
4:  slli a1, a1, 10
    add sp, sp, a1
    call cluster_main
5:  wfi
    j 5b
