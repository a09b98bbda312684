/* GAP8's registers, as far as this port uses them. Source: GAP8 reference manual, memory map and peripherals. */
#ifndef KWS_GAP8_CHIP_H
#define KWS_GAP8_CHIP_H

#include <stdint.h>

#define REG(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define FLL_SOC_CONF1 REG(0x1A100004u)
#define FLL_CLUSTER_CONF1 REG(0x1A100014u)
#define REF_CLOCK_HZ 32768u

/* uDMA: one area of 0x80 bytes a peripheral; the UART is number 4 */
#define UDMA_CLOCK_GATE REG(0x1A102780u)
#define UART_ID 4u
#define UART_BASE (0x1A102000u + 0x80u * UART_ID)
#define UART_RX_ADDRESS REG(UART_BASE + 0x00u)
#define UART_RX_SIZE REG(UART_BASE + 0x04u)
#define UART_RX_CONFIG REG(UART_BASE + 0x08u)
#define UART_TX_ADDRESS REG(UART_BASE + 0x10u)
#define UART_TX_SIZE REG(UART_BASE + 0x14u)
#define UART_TX_CONFIG REG(UART_BASE + 0x18u)
#define UART_STATUS REG(UART_BASE + 0x20u)
#define UART_SETUP REG(UART_BASE + 0x24u)
/* the HyperBus, number 3: HyperRAM from address 0, flash behind it, as the boot ROM has set it up */
#define HYPER_ID 3u
#define HYPER_BASE (0x1A102000u + 0x80u * HYPER_ID)
#define HYPER_RX_ADDRESS REG(HYPER_BASE + 0x00u)
#define HYPER_RX_SIZE REG(HYPER_BASE + 0x04u)
#define HYPER_RX_CONFIG REG(HYPER_BASE + 0x08u)
#define HYPER_TX_ADDRESS REG(HYPER_BASE + 0x10u)
#define HYPER_TX_SIZE REG(HYPER_BASE + 0x14u)
#define HYPER_TX_CONFIG REG(HYPER_BASE + 0x18u)
#define HYPER_EXTERNAL_ADDRESS REG(HYPER_BASE + 0x20u)
#define HYPER_RAM_CONFIG REG(HYPER_BASE + 0x34u)
#define HYPER_IS_RAM (1u << 2)
#define UDMA_ENABLE (1u << 4) /* read: a transfer is running */
#define UDMA_WAITING (1u << 5) /* read: and a second one waits behind it */
#define UART_8N1_TX_RX (3u << 1 | 1u << 8 | 1u << 9)
#define UART_DIVIDER_BIT 16
#define UART_TX_BUSY 1u

/* power manager's bypass: cluster on, out of reset, clocked */
#define PMU_BYPASS REG(0x1A104070u)
#define PMU_ISOLATE REG(0x1A10400Cu)
#define PMU_CLUSTER_ON (1u << 3)
#define PMU_CLUSTER_CLOCK_GATE (1u << 10)
#define PMU_CLUSTER_RESET (1u << 13)

/* the cluster, as the fabric controller sees it */
#define CLUSTER_FETCH_ENABLE REG(0x10200008u)
#define CLUSTER_CLOCK_GATE REG(0x10200020u)
#define CLUSTER_BOOT_ADDRESS(core) REG(0x10200040u + 4u * (core))
#define CLUSTER_SOFTWARE_EVENT_0 REG(0x10200E00u)
#define CLUSTER_ICACHE_ENABLE REG(0x10201400u)
#define FABRIC_ICACHE_ENABLE REG(0x1B201400u)

/* the cluster, as its own cores see it */
#define TIMER_CONFIG REG(0x00200400u)
#define TIMER_COUNT REG(0x00200408u)
#define TIMER_START REG(0x00200418u)
#define EVENT_MASK REG(0x00204000u)
#define EVENT_WAIT_CLEAR 0x0020403Cu
#define BARRIER_CORES REG(0x00204200u)
#define BARRIER_TARGET REG(0x0020420Cu)
#define BARRIER_WAIT_CLEAR 0x0020421Cu
#define BARRIER_EVENT (1u << 16)
#define WORK_EVENT (1u << 0) /* software event 0 */
#define DMA_COMMAND REG(0x00204400u)
#define DMA_STATUS REG(0x00204404u)
#define DMA_TO_NEAR (1u << 16)
#define DMA_INCREMENT (1u << 17)
#define DMA_MAX_BYTES 0xfffcu

#define L1_BASE 0x10000000u
#define L2_BASE 0x1C000000u
#define N_CORES 8u
#define CLUSTER_ID 0u

/* Load from an event unit's register, asleep until the event has come (p.elw). */
static inline uint32_t sleep_on(uint32_t address) {
    uint32_t value;
    __asm__ volatile(".insn i 0x03, 6, %0, 0(%1)" : "=r"(value) : "r"(address) : "memory");
    return value;
}

static inline uint32_t hart(void) {
    uint32_t id;
    __asm__ volatile("csrr %0, 0xf14" : "=r"(id));
    return id;
}

#endif
